"""The options of a training, and the refusal of one."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from shared.cards.card import Task
from shared.cards.features import FeatureType
from shared.errors import InvalidRequest
from shared.faults import Fault, did_you_mean, pointer

EstimatorName = Literal["linear", "hist_gradient_boosting", "random_forest", "lightgbm", "xgboost"]
ESTIMATORS: tuple[EstimatorName, ...] = get_args(EstimatorName)  # in the order in which draws are dealt to them
MAX_DRAWS = 500
DEFAULT_DRAWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What a caller chooses of a training; the rest follows from the rows."""

    name: str  # of the model
    target: str  # the column with the answer
    task: Task | None = None  # None: read off the target column
    positive: str | None = None  # of two classes the one whose probability is given; None: the second in order
    leave_out: tuple[str, ...] = ()  # columns that are no features
    types: dict[str, FeatureType] = field(default_factory=dict)  # of columns whose type is not to be read off them
    estimators: tuple[str, ...] | None = None  # None: all that are installed
    draws: int = DEFAULT_DRAWS  # combinations of an estimator with its parameters that are tried
    seed: int = 0
    cost_fp: float = 1.0  # of a false positive: the threshold has the least cost
    cost_fn: float = 1.0
    target_recall: float | None = None  # instead of the costs: the highest threshold with this recall

    def dump(self) -> dict[str, Any]:
        """Return the options as JSON has them."""
        return asdict(self)

    @classmethod
    def load(cls, stored: dict[str, Any]) -> "TrainingOptions":
        """Return the options that `dump` wrote."""
        estimators = stored["estimators"]
        return cls(
            **stored
            | {
                "leave_out": tuple(stored["leave_out"]),
                "estimators": None if estimators is None else tuple(estimators),
            }
        )


def refusal(code: str, message: str, *, column: str | None = None) -> InvalidRequest:
    """Return the error for rows or options that no model can be trained with; `message` is a whole sentence."""
    return InvalidRequest(message, faults=[Fault("" if column is None else pointer(column), code, message)])


def check_options(options: TrainingOptions) -> None:
    """Raise InvalidRequest for invalid options."""
    for name in options.estimators or ():
        if name not in ESTIMATORS:
            hint = did_you_mean(name, ESTIMATORS, otherwise=f"there are {', '.join(ESTIMATORS)}")
            raise refusal(
                "estimator", f"There is no estimator {name[:70]!r}: {hint}{'' if hint.endswith('?') else '.'}"
            )
    if options.estimators is not None and not options.estimators:
        raise refusal("estimator", f"Name at least one estimator of {', '.join(ESTIMATORS)}, or leave them out.")
    if not 1 <= options.draws <= MAX_DRAWS:
        raise refusal("draws", f"The draws must be from 1 to {MAX_DRAWS}.")
    if options.cost_fp < 0 or options.cost_fn < 0 or options.cost_fp + options.cost_fn == 0:
        raise refusal("cost", "Costs must not be negative, and one of them must be above 0.")
    if options.target_recall is not None:
        if not 0 < options.target_recall <= 1:
            raise refusal("target_recall", "The target recall must be above 0 and at most 1.")
        if (options.cost_fp, options.cost_fn) != (1.0, 1.0):
            raise refusal(
                "target_recall", "The threshold follows from costs or from a target recall: name one of them."
            )
