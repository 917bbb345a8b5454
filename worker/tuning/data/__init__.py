"""The data of a fine-tuning: uploads of many formats, judged line by line, written in one form.

``examine`` is upkeep's and names everything that is wrong; ``materialise`` is the training
worker's and writes what a recipe reads. Both go through the same readers (``formats``), so that
what one accepts the other can write. Nothing here holds a whole upload in memory.
"""
