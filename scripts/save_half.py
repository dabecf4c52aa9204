#!/usr/bin/env python
"""Save the encoder of a folder, without its head and in half precision, to another folder.

python scripts/save_half.py RUN_DIR OUTPUT_DIR
"""

import json
import sys
from pathlib import Path

import torch

from toolkit.transfer.encoders import load_encoder, modality_of_encoder

source, target = sys.argv[1:]
model, processor = load_encoder(source, "AutoModel", modality_of_encoder(source))
Path(target).mkdir(parents=True, exist_ok=True)
model.to(torch.float16).save_pretrained(target)
processor.save_pretrained(target)
config = json.loads((Path(target) / "config.json").read_text())
config["dtype"] = "float32"  # to compute with
for name in ("id2label", "label2id", "toolkit_task"):  # of the head
    config.pop(name, None)
(Path(target) / "config.json").write_text(json.dumps(config, indent=2) + "\n")
print(f"{target}: {sum(file.stat().st_size for file in Path(target).iterdir()):,} bytes")
