"use strict";
// Sorts and filters tables, fades the side where they go on, copies the command, opens what is folded before it is
// printed. The page is whole without it.
(() => {
  const LEAST_ROWS_TO_SORT = 2;
  const LEAST_ROWS_TO_FILTER = 8;
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  const make = (tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };

  const keyOf = (cell) => {
    if (!cell) return null;
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "" || text.startsWith("—") ? null : text;
  };

  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, undefined, { numeric: true });
  };

  // What is unknown comes last in both directions; equals keep the order they were written in.
  const sorted = (rows, column, direction) => {
    if (direction === "none") return rows;
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [keyOf(row.cells[column]), row]);
    const known = keyed.filter(([key]) => key !== null).sort(([a], [b]) => sign * compare(a, b));
    return [...known, ...keyed.filter(([key]) => key === null)].map(([, row]) => row);
  };

  const makeSortable = (table, rows) => {
    const heads = [...table.tHead.lastElementChild.cells];
    heads.forEach((head, column) => {
      const name = head.dataset.name || head.textContent.trim();
      const button = make("button", { type: "button", class: "sort", "aria-label": `Sort by ${name}`, title: `Sort by ${name}` });
      head.setAttribute("aria-sort", "none");
      head.append(button);
      button.addEventListener("click", () => {
        const direction = NEXT[head.getAttribute("aria-sort")];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", direction);
        table.tBodies[0].append(...sorted(rows, column, direction));
      });
    });
  };

  const makeFilterable = (place, name, rows) => {
    const bar = make("div", { class: "filter" });
    const label = make("label", {}, "Filter ");
    const field = make("input", { type: "search", "aria-label": `Filter ${name}`, autocomplete: "off", spellcheck: "false" });
    const count = make("output", { "aria-live": "polite" }, `${rows.length} rows`);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, number) => {
        row.hidden = !words.every((word) => texts[number].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    });
    label.append(field);
    bar.append(label, count);
    place.before(bar);
  };

  for (const table of document.querySelectorAll("table[data-tools]")) {
    const rows = [...table.tBodies[0].rows];
    const name = table.caption ? table.caption.textContent.trim() : "the table";
    if (rows.length >= LEAST_ROWS_TO_SORT) makeSortable(table, rows);
    if (rows.length >= LEAST_ROWS_TO_FILTER) makeFilterable(table.parentElement, name, rows);
  }
  for (const list of document.querySelectorAll("[data-tools]:not(table)")) {
    makeFilterable(list, list.dataset.tools, [...list.querySelectorAll("dt")].map((name) => name.parentElement));
  }

  // A table that goes on to the right fades there.
  for (const box of document.querySelectorAll(".scroll")) {
    const hidden = () => box.scrollWidth - box.clientWidth - box.scrollLeft; // in pixels; the padding of a cell is none
    const look = () => box.classList.toggle("goes-on", hidden() > 8);
    box.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(box);
  }

  for (const code of document.querySelectorAll("code[data-copy]")) {
    const button = make("button", { type: "button", class: "copy" }, "Copy");
    const select = () => window.getSelection().selectAllChildren(code);
    const done = () => { button.textContent = "Copied"; };
    button.addEventListener("click", () => {
      select();
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select);
    });
    code.after(button);
  }

  // A link into something folded opens it.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let folded = target && target.closest("details"); folded; folded = folded.parentElement.closest("details")) {
      folded.open = true;
    }
    if (target) target.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const folded of opened) folded.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const folded of opened) folded.open = false;
  });

  if (location.hash) reveal(); // last, for an address that is none throws
})();
