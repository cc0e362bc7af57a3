-- needs: deals stages pipelines users
-- What a sales team asks for. Live records only; money never adds up across currencies.
CREATE OR REPLACE VIEW sales.funnel AS
    SELECT p.name AS pipeline, s.order_nr AS stage_nr, s.name AS stage, d.currency, count(*) AS deals,
           sum(d.value) AS value, avg(d.value)::DECIMAL(18, 2) AS average
    FROM main.deals d
    LEFT JOIN main.stages s ON s.id = d.stage_id
    LEFT JOIN main.pipelines p ON p.id = d.pipeline_id
    WHERE d.status = 'open' AND d._deleted_at IS NULL AND NOT coalesce(d.is_archived, false)
    GROUP BY ALL
    ORDER BY pipeline, stage_nr, currency;

CREATE OR REPLACE VIEW sales.won_by_month AS
    SELECT date_trunc('month', won_time)::DATE AS month, currency, count(*) AS deals, sum(value) AS value
    FROM main.deals
    WHERE status = 'won' AND _deleted_at IS NULL
    GROUP BY ALL
    ORDER BY month, currency;

CREATE OR REPLACE VIEW sales.by_owner AS
    SELECT u.name AS owner, d.currency, count(*) FILTER (d.status = 'open') AS open,
           count(*) FILTER (d.status = 'won') AS won, count(*) FILTER (d.status = 'lost') AS lost,
           sum(d.value) FILTER (d.status = 'won') AS won_value,
           round(100.0 * count(*) FILTER (d.status = 'won')
                 / nullif(count(*) FILTER (d.status IN ('won', 'lost')), 0), 1) AS win_rate
    FROM main.deals d
    LEFT JOIN main.users u ON u.id = d.owner_id
    WHERE d._deleted_at IS NULL
    GROUP BY ALL
    ORDER BY won_value DESC NULLS LAST;

CREATE OR REPLACE VIEW sales.lost_reasons AS
    SELECT coalesce(lost_reason, '(none given)') AS reason, count(*) AS deals
    FROM main.deals
    WHERE status = 'lost' AND _deleted_at IS NULL
    GROUP BY ALL
    ORDER BY deals DESC;
