"""The trusted component a zygote runs before it clones the first worker, and the answers it gets.

Running it walks every path a worker's first message takes: instantiation, values in both directions, host functions,
both channels, a trap. What it touches is warm and settled when workers are cloned, so they copy fewer pages.
"""
