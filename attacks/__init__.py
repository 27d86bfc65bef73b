"""Attacks: one pure function per file, same first arguments (model, inputs, labels).

`generate.py` is the script that writes attacked images.
"""

from attacks.fgsm import fgsm

ATTACKS = {"FGSM": fgsm}
