"""The engine: plans, runs, records and exports studies; names no procedure."""

import os

from search.path import FOLDER, settle

if FOLDER in os.environ:  # in a worker: before anything else of ours is imported
    settle(os.environ[FOLDER])
