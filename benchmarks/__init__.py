"""Time and temporary memory, measured side by side in one run: `python -m benchmarks`.

`measure` times competitors in turn, `memory` finds what they need besides their inputs and outputs, `baselines` holds
what the library is compared with, and `report` writes tables, JSON and pictures. A benchmark is a function
`works(device, quick)` that yields a `Work` for every length of its axes. To add one, add it to `SUITE` in `__main__`.

Trust the ratios within one run more than the times. On a machine that other work keeps busy, PyTorch's threads wait for
one another at every operation; then `OMP_NUM_THREADS=1` tells more about the library than about the machine.
"""
