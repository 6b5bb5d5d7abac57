"""Time and temporary memory, measured side by side in one run: `python -m benchmarks`.

`measure` times competitors in turn, `memory` finds what they need besides their inputs and outputs, `baselines` holds
what the library is compared with, and `report` writes tables, JSON and pictures. A benchmark is a function
`works(device, quick)` that yields a `Work` for every row of its tables; add it to `SUITE` in `__main__`.

Ratios within one run are what counts. On a machine that others keep busy, PyTorch's threads wait for one another at
every operation; `OMP_NUM_THREADS=1` then tells more about the library than about the machine.
"""
