// Drives the sandbox with the vendor's own client, and prints what came back as one JSON object.
// node node_client.cjs URL TOKEN

const now = { v1: require("pipedrive/v1"), v2: require("pipedrive/v2") };
const before = { v1: require("pipedrive-before/v1") }; // still has what v1 lost in 2026

const [url, apiKey] = process.argv.slice(2);
const v1 = new now.v1.Configuration({ apiKey, basePath: `${url}/v1` });
const old = new before.v1.Configuration({ apiKey, basePath: `${url}/api/v1` });
const v2 = new now.v2.Configuration({ apiKey, basePath: `${url}/api/v2` });

async function byCursor(list) {
  const ids = [];
  for (let cursor; ; ) {
    const page = await list({ limit: 50, cursor });
    ids.push(...page.data.map((record) => record.id ?? record.field_code));
    cursor = page.additional_data.next_cursor;
    if (!cursor) return ids;
  }
}

async function byOffset(list) {
  const ids = [];
  for (let start = 0; ; ) {
    const page = await list({ limit: 40, start });
    ids.push(...(page.data ?? []).map((record) => record.id));
    const { pagination } = page.additional_data;
    if (!pagination.more_items_in_collection) return ids;
    start = pagination.next_start;
  }
}

async function refusal(promise) {
  try {
    return await promise;
  } catch (error) {
    return error.response?.data ?? error; // the client throws the body of the answer
  }
}

async function main() {
  const deals = new now.v2.DealsApi(v2);
  const persons = new now.v2.PersonsApi(v2);
  const dealsV1 = new before.v1.DealsApi(old);
  const files = new now.v1.FilesApi(v1);
  const out = {};

  out.dealsByCursor = await byCursor((page) => deals.getDeals(page));
  out.personsByCursor = await byCursor((page) => persons.getPersons(page));
  out.fieldsByCursor = await byCursor((page) => new now.v2.DealFieldsApi(v2).getDealFields(page));
  out.dealsByOffset = await byOffset((page) => dealsV1.getDeals(page));
  out.filesByOffset = await byOffset((page) => files.getFiles(page));
  out.users = (await new now.v1.UsersApi(v1).getUsers()).data.length;
  out.me = (await new now.v1.UsersApi(v1).getCurrentUser()).data.company_id;

  const added = (await deals.addDeal({ AddDealRequest: { title: "From Node 🚀", value: 12.5 } })).data;
  out.added = added.id;
  out.updated = (await deals.updateDeal({ id: added.id, UpdateDealRequest: { status: "won" } })).data.won_time;
  out.got = (await deals.getDeal({ id: added.id, include_fields: "activities_count" })).data;
  out.deleted = (await deals.deleteDeal({ id: added.id })).data;

  const first = (await persons.addPerson({ AddPersonRequest: { name: "Node One", emails: [{ value: "1@node.example" }] } })).data;
  const second = (await persons.addPerson({ AddPersonRequest: { name: "Node Two" } })).data;
  const merging = { id: first.id, MergePersonsRequest: { merge_with_id: second.id } };
  out.merged = (await new now.v1.PersonsApi(v1).mergePersons(merging)).data;
  out.loser = first.id;
  out.gone = await refusal(persons.getPerson({ id: first.id }));

  const byV1 = (await dealsV1.addDeal({ AddDealRequest: { title: "By v1", value: 3 } })).data;
  out.v1Added = byV1.id;
  out.v1Updated = (await dealsV1.updateDeal({ id: byV1.id, UpdateDealRequest: { title: "By v1, again" } })).data.title;
  out.v1Got = (await dealsV1.getDeal({ id: byV1.id })).data.user_id.value;
  out.v1Deleted = (await dealsV1.deleteDeal({ id: byV1.id })).data.id;

  console.log(JSON.stringify(out));
}

main().catch((error) => {
  console.error(error.response?.data ?? error);
  process.exit(1);
});
