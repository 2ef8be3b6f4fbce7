"""TFDS builders of the packaged data sets: one module a data set, its class named `Builder`.

A module's name is the data set's: builders/NAME.py is read as `package:NAME`. Raise VERSION when
what a builder writes changes, so that data prepared earlier are left aside.
"""
