// A table of which only the rows in sight exist: the kernel sorts, filters and cuts out the window that is
// asked for. `view` comes from the kernel, `asked` goes to it; nobody writes the other's trait.

const ROW_HEIGHT = 24;
const SCREENFUL = 12; // rows in sight, fewer where there are fewer
const FEWEST = 3;
const SCROLLBAR = 12; // room for the one below
const MARGIN = 8; // rows above and below those in sight, so that a short scroll shows no gap

function element(tag, className, parent) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  parent?.append(made);
  return made;
}

function render({ model, el }) {
  const root = element("div", "netlab-table", el);
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own keys would take the arrows and letters
  const search = element("input", "netlab-search", root);
  search.type = "search";
  search.placeholder = "Filter: words that a row must have";
  search.setAttribute("aria-label", "Filter rows");
  const port = element("div", "netlab-port", root);
  port.tabIndex = 0;
  const sheet = element("div", "netlab-sheet", port);
  const table = element("table", "", sheet);
  table.setAttribute("role", "grid");
  const head = element("tr", "", element("thead", "", table));
  const body = element("tbody", "", table);
  const note = element("div", "netlab-note", root);

  const asked = () => model.get("asked");
  function ask(change) {
    model.set("asked", { ...asked(), ...change });
    model.save_changes();
  }

  const headers = model.get("columns").map((column) => {
    const cell = element("th", column.numeric ? "netlab-number" : "", head);
    cell.title = column.meaning;
    const button = element("button", "", cell);
    button.textContent = column.title;
    button.addEventListener("click", () => {
      const { sort, descending } = asked();
      if (sort !== column.name) ask({ sort: column.name, descending: column.numeric, offset: 0 });
      else if (descending === column.numeric) ask({ descending: !descending, offset: 0 });
      else ask({ sort: "", descending: false, offset: 0 }); // the third click: as it was
    });
    return { name: column.name, cell, button, title: column.title };
  });

  function showHeaders() {
    const { sort, descending } = asked();
    for (const { name, cell, button, title } of headers) {
      const sorted = name === sort;
      cell.setAttribute("aria-sort", sorted ? (descending ? "descending" : "ascending") : "none");
      button.textContent = sorted ? `${title} ${descending ? "▼" : "▲"}` : title;
    }
  }

  function rowOf({ key, cells, bad }, number) {
    const row = element("tr", bad ? "netlab-bad" : "");
    row.dataset.key = key;
    row.setAttribute("aria-rowindex", number + 1);
    row.setAttribute("aria-selected", key === asked().selected);
    cells.forEach((text, place) => {
      const cell = element("td", model.get("columns")[place].numeric ? "netlab-number" : "", row);
      cell.textContent = text; // never HTML: the text comes from the network
      cell.title = text;
    });
    return row;
  }

  function showRows() {
    const { rows, offset, matching, total } = model.get("view");
    sheet.style.height = `${ROW_HEIGHT * (matching + 1)}px`;
    port.style.height = `${ROW_HEIGHT * (Math.min(Math.max(matching, FEWEST), SCREENFUL) + 1) + SCROLLBAR}px`;
    body.style.transform = `translateY(${ROW_HEIGHT * offset}px)`;
    body.replaceChildren(...rows.map((row, place) => rowOf(row, offset + place)));
    table.setAttribute("aria-rowcount", matching);
    const all = total === null ? "" : `${total.toLocaleString("en")} ${total === 1 ? "row" : "rows"}`;
    note.textContent = total === null || matching === total ? all : `${matching.toLocaleString("en")} of ${all}`;
  }

  function showSelection() {
    for (const row of body.children) row.setAttribute("aria-selected", row.dataset.key === asked().selected);
  }

  let due = null;
  const inTime = (action, ms) => {
    clearTimeout(due);
    due = setTimeout(action, ms);
  };
  search.addEventListener("input", () => inTime(() => {
    port.scrollTop = 0;
    ask({ words: search.value, offset: 0 });
  }, 150));
  port.addEventListener("scroll", () => inTime(() => {
    const offset = Math.max(0, Math.floor(port.scrollTop / ROW_HEIGHT) - MARGIN);
    if (offset !== asked().offset) ask({ offset });
  }, 30));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) ask({ selected: row.dataset.key });
  });
  port.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const rows = [...body.children];
    const place = rows.findIndex((row) => row.dataset.key === asked().selected);
    const next = rows[place < 0 ? 0 : place + step];
    if (!next) return;
    ask({ selected: next.dataset.key });
    next.scrollIntoView({ block: "nearest" });
  });

  const showAsked = () => { showHeaders(); showSelection(); };
  model.on("change:view", showRows);
  model.on("change:asked", showAsked);
  showHeaders();
  showRows();
  return () => {
    clearTimeout(due);
    model.off("change:view", showRows);
    model.off("change:asked", showAsked);
  };
}

export default { render };
