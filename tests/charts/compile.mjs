// Compiles the Vega-Lite specs of a folder to Vega: node compile.mjs FOLDER CONFIG, in a folder with node_modules.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const require = createRequire(join(process.cwd(), "x.js"));
const vegaLite = await import(pathToFileURL(require.resolve("vega-lite")));
const config = readFileSync(process.argv[3], "utf8");
const compiled = { vega_lite: vegaLite.version, charts: {} };
for (const file of readdirSync(folder).filter((name) => name.endsWith(".vl.json")).sort()) {
  const text = readFileSync(join(folder, file), "utf8");
  const chart = JSON.parse(text);
  if (!chart.spec) continue;
  const warn = (...words) => {
    // Said of each chart that is as high as its rows need and as wide as the page: that is meant.
    if (!words.join(" ").startsWith('Dropping "fit-y"')) throw new Error(`${file}: ${words.join(" ")}`);
    return logger;
  };
  const logger = { level: () => logger, warn, info: () => logger, debug: () => logger, error: warn };
  const { spec } = vegaLite.compile(chart.spec, { config: JSON.parse(config), logger });
  delete spec.$schema; // the page names no address
  const digest = createHash("sha256").update(config + text).digest("hex");
  compiled.charts[chart.name] = { source: digest, spec };
}
const lines = Object.entries(compiled.charts).map(([name, chart]) => `${JSON.stringify(name)}: ${JSON.stringify(chart)}`);
writeFileSync(join(folder, "compiled.json"), `{"vega_lite": "${compiled.vega_lite}", "charts": {\n${lines.join(",\n")}\n}}\n`);
