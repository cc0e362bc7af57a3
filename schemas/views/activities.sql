-- needs: activities users
-- What is to be done, and what was forgotten.
CREATE OR REPLACE VIEW sales.activities_due AS
    SELECT a.due_date, a.due_time, a.type, a.subject, u.name AS owner, a.deal_id, a.person_id, a.org_id,
           a.due_date < current_date AS overdue
    FROM main.activities a
    LEFT JOIN main.users u ON u.id = a.owner_id
    WHERE NOT a.done AND a._deleted_at IS NULL
    ORDER BY a.due_date, a.due_time;
