// Reads a file in a worker, so that a large one doesn't block the page.
import { groupColumns, idColumn, readFile, textColumn } from "../tables.js";

onmessage = async ({ data: file }) => {
  try {
    const table = await readFile(file);
    const text = textColumn(table);
    postMessage({ ...table, text, id: idColumn(table, text), groups: groupColumns(table) });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
