"""The floor of airssys: kernel primitives, the cage, zygote, worker, compiler, guest values and wire frames.

What runs inside a cage imports this folder alone. It imports neither `bridge` nor `supervisor`; arrows
point down only (supervisor -> bridge -> sandbox).
"""
