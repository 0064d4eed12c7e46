"""Values that nobody meant a key to have, and what may be said of them."""

from __future__ import annotations

from hypothesis import strategies as st

from diffsweep.core.problems import BadInput
from diffsweep.core.text import visible

SECRET = "canary-7f1c"  # in the environment, as CANARY

HOSTILE = (
    *("auto", "null", "true", "", " ", "~", "~nobody/x", "a\x00b", "\udcff", "\x1b[2J", "\u202etxt", "x" * 300),
    *("../../etc/passwd", "/dev/zero", "/dev/stdin", "fifo", "folder", ".", "..", "owner/name", "owner/name@revision"),
    *("${seed}", "${oc.env:CANARY}", "${nowhere}", "${", "\\${seed}", "${prompt}", "???", "{name: flip}", "@file"),
    *("=1+1", "<script>alert(1)</script>", "\\input{/etc/passwd}", "circle 0 0 1e9 red", "circle nan 0 inf red"),
)
texts = st.sampled_from(HOSTILE) | st.text(max_size=20)
numbers = (
    st.integers(-3, 1100)
    | st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**40])
    | st.floats()
    | st.sampled_from([0.5, 1e-300, 1e300])
)
atoms = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


def said(error: BadInput) -> None:
    """It says something, nothing that a terminal would obey, and not the secret."""
    assert all(message.strip() and message == visible(message) for message in error.messages)
    assert SECRET not in str(error)
