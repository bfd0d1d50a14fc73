"use strict";
// Sorts tables by the column whose heading is pressed, and copies what stands beside a copy button.
(() => {
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  document.querySelectorAll("table[data-sortable]").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const numeric = heading.classList.contains("number");
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
        return rising ? order : -order;
      });
      table.tBodies[0].append(...rows);
    }));
  });
  document.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      // A file opened from disk may not have the clipboard: select, and let the old command copy.
      getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }));
})();
