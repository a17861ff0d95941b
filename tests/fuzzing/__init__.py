"""The harness of the fuzz: random inputs, and what different readers make of them.

`generator` makes the inputs. `ours` reads them by our layer, `strangers` by wsproto and websockets,
`walking` by their headers alone; `outcomes` are the values that these give out, and `checks`
compares them. `network` sends inputs over loopback TCP. `batches` runs numbered inputs and counts
in a `tally`, and `command` does so in several processes. `faults` tells whose fault it is when
something goes wrong.
"""
