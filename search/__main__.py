"""`python -m search ...`"""

from search.path import start

start("python -m search")
