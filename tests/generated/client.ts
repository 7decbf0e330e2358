// Uses the types that openapi-typescript makes of a pool's description and of the API's. The compiler checks them.
import createClient from "openapi-fetch";
import type { components, paths } from "./typed.js";
import type { paths as SitePaths } from "./site.js";

declare const process: { argv: string[]; exitCode: number };
type Match = components["schemas"]["find.result.Match"];
type WatchEvent = components["schemas"]["watch.event"];

const [baseUrl = "", authorization = ""] = process.argv.slice(2);
const client = createClient<paths, "application/json">({ baseUrl, headers: { authorization } });
const site = createClient<SitePaths, "application/json">({ baseUrl, headers: { authorization } });

const found = await client.POST("/api/pools/typed/commands/find", { body: { text: "a", limit: 1 } });
const matches: Match[] = found.data?.result ?? [];
const label: "tea" | "cake" | undefined = matches[0]?.label;
const price: string | null | undefined = matches[0]?.price;
// @ts-expect-error: a score is a number
const wrong: string | undefined = matches[0]?.score;

// @ts-expect-error: the argument `text` is missing
const refused = await client.POST("/api/pools/typed/commands/find", { body: { limit: 1 } });
const code: string | undefined = refused.error?.error.code;

const failed = await client.POST("/api/pools/typed/commands/fail", {});
const lines = await client.POST("/api/pools/typed/commands/watch", { body: { lines: [{ number: 1, text: "one" }] } });
const picture = await client.POST("/api/pools/typed/commands/picture", { body: { data: "UE5H" } });

const stream = await client.POST("/api/pools/typed/commands/watch", {
  body: { lines: [{ number: 1 }, { number: 2, text: "two" }] },
  headers: { accept: "text/event-stream" },
  parseAs: "text",
});
const events = String(stream.data)
  .split("\n\n")
  .filter((block) => block.includes("event: "))
  .map((block): WatchEvent => {
    const field = (name: string) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
    return { event: field("event"), data: JSON.parse(field("data") ?? "null") } as WatchEvent;
  });
const told = events.map((one) => (one.event === "chunk" ? [one.event, one.data.number, one.data.text ?? ""] : [one.event]));

const status = await site.GET("/api/status");
const ready: number | undefined = status.data?.pools[0]?.ready;

console.log(
  JSON.stringify({
    label,
    price,
    score: wrong,
    refused: code,
    failed: [failed.response.status, failed.error?.error.message],
    lines: lines.data?.result.map((line) => line.text),
    picture: picture.data?.result.$bytes,
    told,
    ready,
  }),
);
