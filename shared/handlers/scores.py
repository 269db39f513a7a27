"""The scores of rows: the jobs `predict` and `batch`."""

from shared.handlers.handler import Handler
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output

SCORES: Handler[Output] = Handler("scores", score_rows)
