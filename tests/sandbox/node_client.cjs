// Carries out calls of the vendor's own client, one after the other, and prints what each came to as JSON.
//
// Reads {url, token, saved, calls} from standard input. A call is {name, client, api, method, args, walk}; `$name.path`
// in its arguments stands for a part of what an earlier call of that name answered as `data`, `$name` for its id.
// `body` is the call's one object, whatever the client calls it; `upload` a file with that name.

const clients = {
  v1: { module: require("pipedrive/v1"), base: "/v1" },
  v2: { module: require("pipedrive/v2"), base: "/api/v2" },
  old: { module: require("pipedrive-before/v1"), base: "/api/v1" }, // has what v1 lost in 2026
};

const idOf = (data) => data?.id ?? data?.field_code ?? data?.uuid ?? data;

function filled(value, saved) {
  if (Array.isArray(value)) return value.map((each) => filled(each, saved));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, filled(each, saved)]));
  if (typeof value !== "string" || !value.startsWith("$")) return value;
  const [name, ...path] = value.slice(1).split(".");
  return path.length ? path.reduce((part, key) => part[key], saved[name]) : idOf(saved[name]);
}

function parameters(call, api, args) {
  const names = [...api[call.method].toString().matchAll(/requestParameters\.(\w+)/g)].map((match) => match[1]);
  const { body, upload, ...rest } = args;
  if (body !== undefined) rest[names.find((name) => /^[A-Z]/.test(name))] = body;
  if (upload !== undefined) rest[names.find((name) => ["file", "data"].includes(name))] = new File(["content"], upload);
  return rest;
}

async function carryOut(call, url, apiKey, saved) {
  const { module, base } = clients[call.client];
  const api = new module[`${call.api}Api`](new module.Configuration({ apiKey, basePath: `${url}${base}` }));
  const args = parameters(call, api, filled(call.args, saved));
  if (!call.walk) return await api[call.method](args);
  const ids = [];
  for (let page, more = {}; ; ) {
    page = await api[call.method]({ ...args, limit: 40, ...more });
    ids.push(...(page.data ?? []).map(idOf));
    const { next_cursor, pagination } = page.additional_data;
    more = pagination ? { start: pagination.next_start } : { cursor: next_cursor };
    if (pagination ? !pagination.more_items_in_collection : !next_cursor) return { success: true, data: ids };
  }
}

async function main() {
  const { url, token, saved, calls } = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const outcomes = [];
  for (const call of calls) {
    try {
      const answer = await carryOut(call, url, token, saved);
      if (call.name) saved[call.name] = answer.data;
      outcomes.push({ answer });
    } catch (error) {
      outcomes.push({ error: error.response?.data ?? (error instanceof Error ? String(error.stack) : error) });
    }
  }
  console.log(JSON.stringify(outcomes));
}

main();
