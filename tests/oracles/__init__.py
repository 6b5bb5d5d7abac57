"""Each structure again, in plain Python and NumPy float64, straight from its equations.

The oracles are what the library is judged against. They share no code with it and import NumPy and the
standard library only. They are slow on purpose: a loop over time, a loop over slots, a sum for every sum in
the paper, so that a reader can hold each file beside the equations and check it line by line.

Nothing is batched: tests loop over batch axes. No function changes the arrays it is given.
"""
