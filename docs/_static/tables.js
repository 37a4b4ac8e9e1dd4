// Sorts a table by the column whose head is pressed: numbers by their value, what is empty last.
function sort(head, table) {
  const column = head.cellIndex, up = head.getAttribute('aria-sort') !== 'ascending';
  const rows = [...table.tBodies[0].rows], text = row => row.cells[column].textContent;
  const numbers = rows.every(row => !isNaN(text(row)));
  const compare = (a, b) => {
    if (!text(a) || !text(b)) return !text(a) - !text(b);
    const order = numbers ? text(a) - text(b) : text(a).localeCompare(text(b));
    return up ? order : -order;
  };
  for (const cell of table.tHead.rows[0].cells) cell.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  table.tBodies[0].append(...rows.sort(compare));
}
for (const table of document.querySelectorAll('.sortable table'))
  for (const head of table.tHead.rows[0].cells)
    head.querySelector('button').addEventListener('click', () => sort(head, table));
