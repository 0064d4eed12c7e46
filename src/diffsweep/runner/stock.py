"""What the store holds of a sweep, and what it lacks. Needs no torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator

from diffsweep.core.problems import BadInput
from diffsweep.core.text import counted
from diffsweep.runner.cell import Cell
from diffsweep.runner.identity import as_typed
from diffsweep.runner.plan import Plan
from diffsweep.store import document
from diffsweep.store.cells import Store
from diffsweep.store.schema import Absent, Damaged, Document


class Stock:
    """A sweep as it is stored. cells: each one once; stored: those that were found so far, or made."""

    def __init__(self, whole: Plan, store: Store) -> None:
        self.plan, self.store = whole, store
        self.cells = {cell.id: cell for cell in whole.cells}
        self.folder = whole.root / "sweeps" / whole.name
        self.stored: set[str] = set()

    def document(self, command: str, created: str, tell: Callable[[str], None] = lambda text: None) -> Document:
        """What sweep.json holds; where it is missing or damaged, that of a sweep without cells, which this command
        creates. tell: hears that it is damaged."""
        try:
            return {**document.read(self.folder), "name": self.plan.name}
        except Absent:
            pass
        except Damaged as error:
            tell(f"note: {error}; it is written anew")
        return document.empty(self.plan.name, command, created)

    def kept(self, cell: Cell) -> bool:
        """Whether a cell is stored with all that the sweep wants of it."""
        record = self.store.finished(cell.id)
        if record is None:
            return False
        self.stored.add(cell.id)
        asked = self.plan.trajectory
        return not asked or record["facts"].get("trajectory", {}).get("asked") == asked

    def missing(self) -> list[Cell]:
        """The cells of the sweep that are to be sampled."""
        return [cell for cell in self.cells.values() if not self.kept(cell)]

    def bases(self, missing: Iterable[Cell]) -> list[Cell]:
        """Beside these, the cells that must be sampled before them: those whose pictures they enlarge."""
        before = {base.id: base for cell in missing for base in self._before(cell)}
        return [base for base in before.values() if base.id not in self.cells]

    def _before(self, cell: Cell) -> Iterator[Cell]:
        """From the last back."""
        for base in cell.cascade[-2::-1]:
            if self.store.is_complete(base.id):
                return
            yield base

    def has(self, cell: Cell) -> bool:
        """Whether a cell's picture is there, such as one to enlarge."""
        return cell.id in self.stored or self.store.is_complete(cell.id)

    def refuse_to_replace(self, others: Iterable[str], command: str) -> None:
        """BadInput where the sweep's tables would lose stored cells, of these other ones. Cells whose content alone
        changed (an edited input, an edited plugin) are not lost. command: what is typed."""
        renewed = {as_typed(cell.config) for cell in self.plan.cells}
        records = filter(None, map(self.store.finished, sorted(others)))
        if finished := sum(as_typed(record["config"]) not in renewed for record in records):
            measures = any(word.startswith("metric") for word in shlex.split(command))
            score = f"diffsweep-results score {shlex.quote(self.plan.name)} metric=..."
            raise BadInput(
                f"sweep.name={self.plan.name}: this sweep has {counted('other cell', finished)}, which its tables and "
                "sheets would not show any more; give another sweep.name, or sweep.replace=true (stored cells stay)"
                + (f"; `{score}` measures what is stored" if measures else "")
            )
