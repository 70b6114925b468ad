import pandas as pd
def with_drops(c,d): return c
def with_owners(d,c): return d
