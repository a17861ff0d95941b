"""The harness of the fuzz: inputs that anybody could send, and what different readers make of them.

`outcomes` are the values that are compared, `generator` makes the inputs, `ours` and `strangers`
read them, `checks` compares what they found, and `network` sends inputs over loopback TCP.
`command` runs any number of inputs; `faults` tells whose fault it is when one of them goes wrong.
"""
