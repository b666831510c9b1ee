"use strict";
// Filters the board, and shows the night under the pointer in a chart. The pages are whole without it.
(() => {
  const board = document.querySelector("table[data-filter]");
  if (board) {
    const rows = [...board.tBodies[0].rows];
    const bar = document.createElement("div");
    bar.className = "filter";
    bar.innerHTML = '<label>Filter <input type="search" aria-label="Filter series" autocomplete="off" spellcheck="false"></label> <output aria-live="polite"></output>';
    const [field, count] = [bar.querySelector("input"), bar.querySelector("output")];
    let place = null;
    const known = rows.map((row) => {
      if (row.className === "place") { place = row; return [row, null, ""]; }
      return [row, place, `${place ? place.textContent : ""} ${row.textContent}`.toLowerCase()];
    });
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const used = new Set();
      let shown = 0;
      for (const [row, above, text] of known) {
        if (row === above || row.className === "place") continue;
        row.hidden = !words.every((word) => text.includes(word));
        if (!row.hidden) { used.add(above); shown += 1; }
      }
      for (const row of rows) if (row.className === "place") row.hidden = !used.has(row);
      count.textContent = `${shown} series`;
    };
    field.addEventListener("input", filter);
    board.parentElement.before(bar);
    filter();
  }

  const chart = document.querySelector(".chart[data-first]");
  const table = document.querySelector("table.nights");
  if (chart && table) {
    const [first, last] = [Number(chart.dataset.first), Number(chart.dataset.last)];
    const utc = (text) => Date.parse(`${text.replace(" ", "T")}Z`) / 1000;
    const nights = [...table.tBodies[0].rows].map((row) => [utc(row.cells[0].textContent.trim()), row]);
    const tip = document.createElement("span");
    const words = document.createElement("b");
    tip.className = "tip";
    tip.hidden = true;
    tip.append(words);
    chart.append(tip);
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const at = first + ((last - first) * (event.clientX - box.left)) / box.width;
      const [time, row] = nights.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
      const share = (100 * (time - first)) / (last - first);
      tip.style.left = `${share}%`;
      tip.classList.toggle("left", share > 50);
      words.textContent = [...row.cells].map((cell) => cell.textContent.trim()).filter(Boolean).join(" · ");
      tip.hidden = false;
    });
    chart.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
})();
