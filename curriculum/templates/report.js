"use strict";
// The page's only script: sorting, filtering, paging. The page is whole without it. Text of the page is compared and
// moved, never read as markup.
(() => {
  const all = (what, from = document) => [...from.querySelectorAll(what)];
  const byId = (id) => document.getElementById(id);
  for (const element of all("[data-script]")) element.hidden = false;

  // Tables that scroll sideways can be reached and scrolled by keyboard.
  const regions = () => {
    for (const box of all(".wide")) {
      const caption = box.querySelector("caption");
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", caption ? caption.textContent : "table");
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    }
  };

  // Sorting, by a button in each heading.
  const key = (cell, text) => {
    const said = cell.textContent.trim();
    return text ? said.toLowerCase() : parseFloat(said.replace("−", "-").replaceAll(",", ""));
  };
  const sort = (table, heading) => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of all("th[aria-sort]", table.tHead)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const text = heading.dataset.sort === "text", sign = up ? 1 : -1;
    const keyed = [...table.tBodies[0].rows].map((row) => [key(row.cells[heading.cellIndex], text), row]);
    const known = ([value]) => text || !Number.isNaN(value);
    const sorted = keyed.filter(known).sort(([a], [b]) => sign * (text ? a.localeCompare(b) : a - b));
    table.tBodies[0].append(...sorted.map(([, row]) => row), ...keyed.filter((k) => !known(k)).map(([, row]) => row));
  };
  for (const table of all("table.sortable")) {
    for (const heading of all("th:not([data-sort=none])", table.tHead)) {
      const button = document.createElement("button");
      button.type = "button";
      const wrap = () => { button.append(...heading.childNodes); heading.append(button); };
      wrap();
      // With a button in it Chromium does not repeat a table's head on the next page.
      addEventListener("beforeprint", () => heading.replaceChildren(...button.childNodes));
      addEventListener("afterprint", wrap);
      button.addEventListener("click", () => sort(table, heading));
    }
  }

  // The skills that are shown.
  const skills = byId("skill-table");
  if (skills) {
    const rows = [...skills.tBodies[0].rows].map((row) => [row, row.cells[0].textContent.toLowerCase()]);
    const filter = () => {
      const text = byId("skill-text").value.trim().toLowerCase(), state = byId("skill-state").value;
      const level = all("input[name=level]").find((input) => input.checked);
      const chosen = level ? level.id.slice("level-".length) : "all";
      let shown = 0, of = 0;
      for (const [row, name] of rows) {
        row.hidden = !(name.includes(text) && (!state || row.dataset.state === state));
        of += row.dataset.level === chosen;
        shown += row.dataset.level === chosen && !row.hidden;
      }
      byId("skill-count").textContent = `${shown} of ${of} rows`;
      regions();
    };
    for (const input of all("#skills .controls input, #skills .controls select")) input.addEventListener("input", filter);
    filter();
  }

  // The failures, some at a time.
  const PAGE = 20;
  const list = byId("failure-list");
  if (list) {
    const items = [...list.children].map((item) => [item, item.textContent.toLowerCase()]);
    let page = 0;
    const show = () => {
      const text = byId("failure-text").value.trim().toLowerCase();
      const skill = byId("failure-skill").value, outcome = byId("failure-outcome").value;
      const wanted = items.filter(([item, words]) =>
        (!text || words.includes(text)) && (!outcome || item.dataset.outcome === outcome) &&
        (!skill || item.dataset.skills.split(" ").includes(skill)));
      page = Math.max(0, Math.min(page, Math.ceil(wanted.length / PAGE) - 1));
      for (const [item] of items) item.hidden = true;
      const shown = wanted.slice(page * PAGE, (page + 1) * PAGE);
      for (const [item] of shown) item.hidden = false;
      byId("failure-back").disabled = page === 0;
      byId("failure-on").disabled = (page + 1) * PAGE >= wanted.length;
      byId("failure-count").textContent = wanted.length
        ? `${page * PAGE + 1} to ${page * PAGE + shown.length} of ${wanted.length}` : "none";
    };
    for (const id of ["failure-text", "failure-skill", "failure-outcome"]) {
      byId(id).addEventListener("input", () => { page = 0; show(); });
    }
    byId("failure-back").addEventListener("click", () => { page -= 1; show(); });
    byId("failure-on").addEventListener("click", () => { page += 1; show(); });
    show();
  }

  regions();
  addEventListener("resize", regions);
  document.addEventListener("toggle", regions, true);
})();
