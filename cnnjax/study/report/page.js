"use strict";
// Tables that sort, filter and copy; a page that is being watched loads itself anew.

const textOf = (cell) => (cell.querySelector("code") ?? cell).textContent.trim();
const bodyRows = (table) => [...table.tBodies[0].rows];
const shownRows = (table) => bodyRows(table).filter((row) => !row.hidden);
const tell = (ident, text) => {
  const status = document.querySelector(`[data-status="${CSS.escape(ident)}"]`);
  if (status) status.textContent = text;
};

// What sorts: the cell's full value where it has one, else its text; what is absent comes last.
function keyOf(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = textOf(cell);
  if (cell.classList.contains("number") || text === "–") return NaN;
  return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
}

function compare(a, b, sign) {
  const absent = [a, b].map((key) => Number.isNaN(key));
  if (absent[0] || absent[1]) return absent[0] - absent[1];
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(header) {
  const table = header.closest("table");
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const sign = descending ? -1 : 1;
  const keyed = bodyRows(table).map((row) => [keyOf(row.cells[header.cellIndex]), row]);
  keyed.sort((a, b) => compare(a[0], b[0], sign));
  table.tBodies[0].append(...keyed.map((pair) => pair[1]));
}

function filterBy(input) {
  const table = document.getElementById(input.dataset.filter);
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of bodyRows(table)) {
    const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const [shown, all] = [shownRows(table).length, bodyRows(table).length];
  tell(table.id, words.length ? `${shown} of ${all} rows` : "");
}

// The rows as they stand: filtered and sorted. A column that is drawn only is left out.
function cellsOf(table) {
  const heads = [...table.tHead.rows[0].cells].filter((head) => !("skip" in head.dataset));
  const rows = shownRows(table).map((row) => heads.map((head) => row.cells[head.cellIndex]));
  return { heads, rows };
}

const FORMATS = {
  CSV(table) {
    const { heads, rows } = cellsOf(table);
    const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const spread = (head) => "spread" in head.dataset;
    const names = heads.flatMap((head) =>
      spread(head) ? [textOf(head), `${textOf(head)} sd`] : [textOf(head)]);
    const lines = rows.map((cells) => cells.flatMap((cell, i) => {
      const absent = cell.classList.contains("number") || spread(heads[i]);
      const value = cell.dataset.value ?? (absent ? "" : textOf(cell));
      return spread(heads[i]) ? [value, cell.dataset.sd ?? ""] : [value];
    }));
    return [names, ...lines].map((line) => line.map(quote).join(",")).join("\n") + "\n";
  },
  LaTeX(table) {
    const { heads, rows } = cellsOf(table);
    const named = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
    const signs = { "±": "$\\pm$", "−": "$-$", "–": "--", "×": "$\\times$", "<": "$<$", ">": "$>$", "|": "$|$" };
    const escape = (text) => text.replace(/[\\~^&%$#_{}±−–×<>|]/g, (c) => named[c] ?? signs[c] ?? `\\${c}`);
    const numbers = heads.map((_, i) => rows.some((cells) => cells[i].classList.contains("number")));
    const line = (cells) => `${cells.map((cell) => escape(textOf(cell))).join(" & ")} \\\\`;
    return [
      `\\begin{tabular}{${numbers.map((is) => (is ? "r" : "l")).join("")}}`,
      "\\toprule", line(heads), "\\midrule", ...rows.map(line), "\\bottomrule", "\\end{tabular}", "",
    ].join("\n");
  },
  Markdown(table) {
    const { heads, rows } = cellsOf(table);
    const escape = (text) => text.replace(/[\\|<]/g, "\\$&").replace(/\s+/g, " ");
    const line = (texts) => `| ${texts.join(" | ")} |`;
    const numbers = heads.map((_, i) => rows.some((cells) => cells[i].classList.contains("number")));
    const all = [heads, ...rows].map((cells) => line(cells.map((cell) => escape(textOf(cell)))));
    all.splice(1, 0, line(numbers.map((is) => (is ? "---:" : "---"))));
    return all.join("\n") + "\n";
  },
};

async function copy(button) {
  const { copy: format, table: ident } = button.dataset;
  const table = document.getElementById(ident);
  try {
    await write(FORMATS[format](table));
    tell(ident, `${shownRows(table).length} rows copied as ${format}`);
  } catch (error) {
    tell(ident, "The browser would not copy; select the table instead");
  }
}

async function write(text) {
  if (navigator.clipboard) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch (error) { /* not allowed here: the older way below */ }
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not allowed");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.copy) copy(button);
  else if (button?.closest("thead th")) sortBy(button.closest("th"));
});
document.addEventListener("input", (event) => {
  if (event.target.dataset.filter) filterBy(event.target);
});

// Not while someone filters or reads a selection: a reload would take it away.
if (document.body.dataset.reload) {
  setInterval(() => {
    const busy = [...document.querySelectorAll("[data-filter]")].some((input) => input.value);
    if (!busy && String(getSelection()) === "") location.reload();
  }, 1000 * Number(document.body.dataset.reload));
}
