// Sorts and filters the leaderboard. Without it the table stands in its documented order.
for (const table of document.querySelectorAll("table.leaderboard")) {
  const body = table.tBodies[1];
  const original = Array.from(body.rows);
  const heads = table.querySelectorAll("thead th[data-sort]");
  heads.forEach((head) => {
    const column = head.cellIndex;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort the methods by this column";
    const label = head.querySelector("span") || head.firstChild;
    head.replaceChild(button, label);
    button.append(label);
    button.addEventListener("click", () => {
      const state = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort || "none"];
      heads.forEach((other) => { other.ariaSort = "none"; });
      head.ariaSort = state;
      const value = (row) => {
        const text = row.cells[column].dataset.value;
        return head.dataset.sort === "text" ? text.toLowerCase() : text === "" ? Infinity : Number(text);
      };
      const rows = original.slice();
      if (state !== "none") rows.sort((a, b) => {
        const left = value(a), right = value(b);
        return (left < right ? -1 : left > right ? 1 : 0) * (state === "ascending" ? 1 : -1);
      });
      body.append(...rows);
    });
  });
  const tools = document.querySelector(".tools");
  if (original.length > 5 && tools) {
    const input = tools.querySelector("input"), output = tools.querySelector("output");
    tools.hidden = false;
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of original) {
        row.hidden = !words.every((word) => row.dataset.search.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      output.value = words.length ? `${shown} of ${original.length}` : "";
    });
  }
}
