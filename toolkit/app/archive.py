"""What a visitor downloads: a folder of transformers, and an ONNX model with a script."""

import shutil
import tempfile
import zipfile
from pathlib import Path

from toolkit.app.learner import Learned
from toolkit.app.rendering import as_percent
from toolkit.app.uploads import LARGEST_SIDE
from toolkit.errors import InputError
from toolkit.export.onnx import delete_parity, export_classifier

NUM_CHECKED = 20  # examples in the parity file
README = """# {title}

A{kind} classifier, made by `toolkit app`: {classes}.
{accuracy}
## model/

A folder of Hugging Face transformers, for `toolkit fewshot predict --encoder model FILE_OR_TEXT` and for
`transformers.pipeline` after `import toolkit`. The pipeline always names a class; the command says `-` for an example
that is of none.

"""
ONNX_README = """
## onnx/

The same without the toolkit and without torch: `python onnx/predict.py FILE_OR_TEXT`. Its answers were compared with
those of the page for {checked} examples; the largest difference of a probability was {difference:.6f}.
"""
CHECK_README = """
`onnx/parity.json` and `onnx/parity/` hold these examples: delete them before you share the folder with anyone who
should not see them. `python onnx/predict.py --check` compares again.
"""


def write_archive(learned: Learned, path: Path, with_examples: bool = True) -> list[str]:
    """Write a zip with everything. Returns what is not in it, and why, in sentences.

    `with_examples` are up to `NUM_CHECKED` of what the visitor has given, with which the ONNX model can be checked
    again. Raises `InputError` if the classifier cannot be saved.
    """
    classifier, lost = learned.classifier, []
    items = learned.items
    checked = items[:: max(1, -(-len(items) // NUM_CHECKED))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier.save(folder / "model")
        (folder / "onnx").mkdir()
        try:
            difference = export_classifier(classifier, folder / "onnx", checked, largest_side=LARGEST_SIDE)
            about_onnx = ONNX_README.format(checked=len(checked), difference=difference)
            if with_examples:
                about_onnx += CHECK_README
            else:
                delete_parity(folder / "onnx")
        except InputError as error:
            shutil.rmtree(folder / "onnx")
            lost.append(f"Without the ONNX model: {error}.")
            about_onnx = f"\n{lost[-1]}\n"
        tested = learned.tested
        accuracy = "" if tested is None else f"\nCross-validated accuracy: {as_percent(tested.accuracy)}.\n"
        text = README.format(
            title=", ".join(classifier.classes_[:3].tolist()),
            kind={"image": "n image", "audio": " sound", "text": " text"}[classifier.modality.name],
            classes=", ".join(classifier.classes_.tolist()),
            accuracy=accuracy,
        )
        (folder / "README.md").write_text(text + about_onnx, encoding="utf-8")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder))
    return lost
