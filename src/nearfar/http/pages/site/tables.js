// Reads what a user drops: CSV, JSON lines, parquet or plain lines, as rows of named columns. No page, no network.

const CODECS = ["UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD"];
const MOST_ROWS = 20_000; // of a parquet file, which may have billions

/** Return {columns, rows, note} of a File, as texts. Throws an Error that says what is wrong. */
export async function readFile(file) {
  if ((await file.slice(0, 4).text()) === "PAR1") return readParquet(file);
  if (/\.parquet$/i.test(file.name)) throw new Error("The file isn't parquet.");
  return readTable(file.name, await file.text());
}

function readTable(name, text) {
  if (/[\0\uFFFD]/.test(text.slice(0, 10_000))) throw new Error("The file isn't text in UTF-8.");
  const clean = text.replace(/^\uFEFF/, "");
  const kind = name.toLowerCase().split(".").at(-1);
  if (kind === "csv" || kind === "tsv") return fromRecords(parseCsv(clean, kind === "tsv" ? "\t" : separator(clean)));
  if (kind === "jsonl" || kind === "ndjson" || kind === "json") return fromObjects(parseJson(clean));
  return {
    columns: ["text"],
    rows: clean
      .split(/\r?\n/)
      .filter((line) => line.trim())
      .map((line) => [line]),
  };
}

/** Return the column that has the longest texts. */
export function textColumn({ columns, rows }) {
  const lengths = columns.map((_, at) =>
    rows.slice(0, 200).reduce((sum, row) => sum + (Number.isNaN(Number(row[at])) ? row[at].length : 0), 0),
  );
  return lengths.indexOf(Math.max(...lengths));
}

/** Return the first column other than the text's in which all values differ, -1 if there is none. */
export function idColumn({ columns, rows }, text) {
  return columns.findIndex((_, at) => at !== text && new Set(rows.map((row) => row[at])).size === rows.length);
}

/** Return the columns that have few enough values to color by. */
export function groupColumns({ columns, rows }, most = 12) {
  return columns
    .map((_, at) => at)
    .filter((at) => {
      const values = new Set(rows.map((row) => row[at]));
      return values.size > 1 && values.size <= most && values.size < rows.length;
    });
}

/** Return the flat columns of a parquet file and its first rows. */
async function readParquet(file) {
  const { gunzip, parquetMetadataAsync, parquetRead, parquetSchema, zstd } = await import("./vendor/parquet.min.js");
  const source = { byteLength: file.size, slice: (from, to) => file.slice(from, to).arrayBuffer() };
  const metadata = await parquetMetadataAsync(source);
  const { children } = parquetSchema(metadata);
  const isFlat = (child) => !child.children.length && child.element.repetition_type !== "REPEATED";
  const [flat, nested] = [true, false].map((wanted) =>
    children.filter((child) => isFlat(child) === wanted).map(({ element }) => element.name),
  );
  if (!flat.length) throw new Error(`Nested columns can't be shown, and the file has no others: ${nested.join(", ")}.`);
  const codec = metadata.row_groups.flatMap((group) => group.columns).find((one) => !CODECS.includes(one.meta_data.codec));
  if (codec) throw new Error(`Its compression, ${codec.meta_data.codec}, isn't supported. ${CODECS.slice(1).join(", ")} are.`);
  const count = Number(metadata.num_rows);
  let rows = [];
  await parquetRead({
    file: source,
    metadata,
    columns: flat,
    rowEnd: Math.min(count, MOST_ROWS),
    compressors: { GZIP: (data) => gunzip(data), ZSTD: (data, size) => zstd(data, new Uint8Array(size)) },
    onComplete: (found) => (rows = found),
  });
  const notes = [
    nested.length ? `nested columns are left out: ${nested.join(", ")}` : null,
    count > MOST_ROWS ? `of ${count.toLocaleString()} rows, the first ${MOST_ROWS.toLocaleString()} are read` : null,
  ];
  return { columns: flat, rows: rows.map((row) => row.map(parquetText)), note: notes.filter(Boolean).join("; ") };
}

function parquetText(value) {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "" : value.toISOString();
  if (value instanceof Uint8Array) return [...value].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return value === null || value === undefined ? "" : String(value);
}

function separator(text) {
  const first = text.slice(0, text.search(/[\r\n]|$/));
  return [",", ";", "\t"].reduce((best, mark) => (first.split(mark).length > first.split(best).length ? mark : best));
}

/** Return the records of a CSV text (RFC 4180): fields may be quoted, and contain separators and line breaks then. */
function parseCsv(text, mark = ",") {
  const records = [];
  let record = [],
    value = "",
    quoted = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (quoted) {
      if (character !== '"') value += character;
      else if (text[at + 1] === '"') {
        value += '"';
        at += 1;
      } else quoted = false;
    } else if (character === '"' && value === "") quoted = true;
    else if (character === mark) {
      record.push(value);
      value = "";
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") at += 1;
      records.push([...record, value]);
      record = [];
      value = "";
    } else value += character;
  }
  if (quoted) throw new Error("A quoted field has no end.");
  if (value !== "" || record.length) records.push([...record, value]);
  return records.filter((fields) => fields.some((field) => field !== ""));
}

function fromRecords([columns, ...rows]) {
  if (!columns || !rows.length) throw new Error("The file needs a line with the columns' names, and rows below it.");
  return { columns, rows: rows.map((row) => columns.map((_, at) => row[at] ?? "")) };
}

function parseJson(text) {
  try {
    return text.trimStart().startsWith("[")
      ? JSON.parse(text)
      : text
          .split("\n")
          .filter((line) => line.trim())
          .map((line) => JSON.parse(line));
  } catch (error) {
    throw new Error(`The file isn't JSON lines: ${error.message}`);
  }
}

function fromObjects(objects) {
  const records = objects.map((value) =>
    value && typeof value === "object" && !Array.isArray(value) ? value : { text: value },
  );
  const columns = [...new Set(records.flatMap((record) => Object.keys(record)))];
  if (!columns.length) throw new Error("The file has no fields.");
  const asText = (value) =>
    value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
  return { columns, rows: records.map((record) => columns.map((column) => asText(record[column]))) };
}
