"""A wrong threshold in compiled trees, put there after every proof: what the self-audit is for.

`in_every_process` lets the processes of a service have it, also those that fork from a server: a folder for PYTHONPATH
with a `sitecustomize` that plants it whenever the model of this name is loaded. While there is a file `hold` in it,
whoever asks the pipeline writes its process id into the file `asks` and waits.
"""

from pathlib import Path

from shared.registry.loading import LoadedModel
from shared.scoring.trees import Trees, _predictor, import_trees

SHIFT = 0.5  # of the first split of the first tree

_SITE = '''
import importlib.machinery
import os
import sys
import time
from pathlib import Path

HOLD = Path(__file__).with_name("hold")
sys.path.insert(0, {root!r})


class Planter:
    """Finds shared.registry.loading as ever, and lets `load` plant the fault."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "shared.registry.loading":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            load, by_pipeline = module.load, module.by_pipeline

            def load_and_plant(version, models_dir):
                from tests.support.planted import plant

                model = load(version, models_dir)
                if version.name == {name!r}:
                    plant(model)
                return model

            def by_pipeline_held(model):
                if HOLD.exists():
                    HOLD.with_name("asks").write_text(str(os.getpid()))
                while HOLD.exists():
                    time.sleep(0.05)
                return by_pipeline(model)

            module.load, module.by_pipeline = load_and_plant, by_pipeline_held

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Planter)
'''


def plant(model: LoadedModel) -> None:
    """Shift the first split of the first tree that a loaded model's compiled trees compare with."""
    trees = model.scorer.model.__self__  # type: ignore[attr-defined]
    assert isinstance(trees, Trees)
    wrong = import_trees(trees.estimator)
    tree = wrong.get_tree_accessor(0)
    thresholds = tree.get_field("threshold").copy()
    thresholds[0] += SHIFT
    tree.set_field("threshold", thresholds)
    trees.model, trees._call = wrong, _predictor(wrong, trees.input.dtype)
    trees.switch = None


def in_every_process(folder: Path, name: str) -> None:
    """Write the sitecustomize for a model of this name into a new folder, for PYTHONPATH."""
    folder.mkdir()
    root = str(Path(__file__).resolve().parents[2])
    (folder / "sitecustomize.py").write_text(_SITE.format(root=root, name=name))
