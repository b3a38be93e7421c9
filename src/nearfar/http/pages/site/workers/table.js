// Reads a file in a worker, so that a large one doesn't block the page.
import { groupColumns, readFile, textColumn } from "../tables.js";

onmessage = async ({ data: file }) => {
  try {
    const table = await readFile(file);
    postMessage({ ...table, text: textColumn(table), groups: groupColumns(table) });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
