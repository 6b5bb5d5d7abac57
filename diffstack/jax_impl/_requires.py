"""Imported first, so that a missing framework is reported with the extra that installs it."""

from diffstack._checks import require

require("jax", extra="jax")
require("optax", extra="jax")
