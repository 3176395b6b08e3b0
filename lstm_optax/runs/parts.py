"""The parts of a run: from which step on it was trained with which package versions."""

from typing import Any

Part = dict[str, Any]  # {"step": steps taken before it, "versions": version by package}


def parts_of(facts: dict[str, Any]) -> list[Part]:
    """Return the parts in the facts of a config.json; older runs have one, their first."""
    return facts.get("parts", [{"step": 0, "versions": facts.get("versions", {})}])


def continue_parts(
    facts: dict[str, Any], step: int, versions: dict[str, str]
) -> tuple[list[Part], str]:
    """Return the parts of a run that continues, and which versions differ from its last part.

    A part at or after the step is left out, since nothing that it trained is left. A part with the
    versions of the one before it is the same part.

    Args:
      facts: of config.json.
      step: of the restored state.
      versions: of Python and the packages that are installed.

    Returns:
      The parts, and a text such as "jax 0.10.1 → 0.12.0"; empty if no version differs.
    """
    parts = [part for part in parts_of(facts) if part["step"] < step]
    old = parts[-1]["versions"] if parts else versions
    changes = [f"{n} {old[n]} → {new}" for n, new in versions.items() if old.get(n, new) != new]
    if changes or not parts:
        parts.append({"step": step, "versions": versions})
    return parts, ", ".join(changes)
