"""What the shipped name finder is trained on by `dpmlm/scrub/train.py`.

`examples.py` reads annotated sets, `templates.py` and `slots.py` make text of our own, `augment.py`
varies both; `card.py` writes the model card, with the sentences of `shapes.py`.
"""
