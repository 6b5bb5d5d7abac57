"""Pages of the reference for families that have none of their own, so that a new family needs none."""

from pathlib import Path

from diffstack.families import FAMILIES

REFERENCE = Path(__file__).parents[1] / "reference"
PAGE = """# {name}

=== "JAX"

    ::: diffstack.jax_impl.{name}
        options:
          toc_label: JAX

=== "PyTorch"

    ::: diffstack.torch_impl.{name}
        options:
          toc_label: PyTorch
"""


def made() -> dict[str, str]:
    """The text of each such page by its name in the reference."""
    return {f"{name}.md": PAGE.format(name=name) for name in FAMILIES if not (REFERENCE / f"{name}.md").exists()}
