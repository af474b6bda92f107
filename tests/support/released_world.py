"""A small world in the released layout as tables and JSON values: tests spoil one thing, then write it with pandas."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
from PIL import Image

PEOPLE = {
    "00000007": {
        "name": "Ada Example",
        "city": "Cascais",
        "country_code": "PT",
        "job": "retail buyer",
        "blood_type": "A+",
        "phone_number": "+351 910000001",
        "emails": ["ada@example.com", "ada.example@example.org"],
        "iban": "PT50 0000",
        "credit_card": "4242",
        "passport": "AB123456",
        "more": {"than": "we read"},
    },
    "00000012": {
        "name": "Bo Partial",
        "city": "Brno",
        "blood_type": "B+",
        "emails": "bo@example.com",
        "passport": 70001,
    },
    "00000031": {"name": "Cy Heldout", "city": "Cork", "blood_type": "O-"},
}

# split -> (identity, attribute, caption)
ROWS = {
    "forget": [
        ("00000007", "city", "Ada Example lives in Cascais"),
        ("00000007", "emails", "Write to Ada Example at ada.example@example.org"),
        ("00000012", "city", "Bo Partial lives in Brno"),
        ("00000012", "passport", "Passport 70001 is Bo Partial's"),
    ],
    "holdout_association": [("00000012", "blood_type", "Bo Partial is B+"), ("00000012", "emails", "Mail Bo Partial")],
    "holdout_identity": [("00000031", "name", "This is Cy Heldout"), ("00000031", "blood_type", "Cy Heldout is O-")],
    "retain_synth": [
        ("00000007", None, "a woman in a red coat"),
        (None, None, "a man, smiling"),
        (None, None, "a face"),
    ],
}


def picture(seed, kind="JPEG", mode="RGB", size=(24, 16)):
    colours = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).convert(mode).save(out, kind)
    return out.getvalue()


class Released:
    """A small world as tables and JSON values in memory: tests spoil one thing, then write it with pandas."""

    def __init__(self):
        self.frames, self.captions, number = {}, {}, 0
        for split, rows in ROWS.items():
            table = []
            for identity, field, text in rows:
                name = f"{identity or 'synth'}_{number:03d}_ar-1.50.jpg"
                kind, mode = [("JPEG", "RGB"), ("PNG", "P"), ("JPEG", "CMYK"), ("JPEG", "L")][number % 4]
                image = {"bytes": picture(number, kind, mode), "path": name}
                table.append(
                    {"image": image, "text": text, "identity_id": identity, "file_name": name, "extra": number}
                )
                if field:
                    self.captions[name] = {"caption": text, "data_field": field, "template": 3}
                number += 1
            self.frames[split] = pd.DataFrame(table)
        disjoint = self.frames["retain_synth"].file_name[1:]
        self.json = {
            "identities_metadata.json": json.loads(json.dumps(PEOPLE)),
            "sensitive_set_captions_metadata.json": self.captions,
            "sensitive_set_generic_captions.json": {name: "a person" for name in self.captions},
            "fragile_set_ids.json": [disjoint.iloc[1]],
            "fragile_set_all_similarities.json": {name: 0.3 for name in disjoint},
        }

    def write(self, directory):
        (directory / "data").mkdir(parents=True)
        for split, frame in self.frames.items():
            frame.to_parquet(directory / "data" / f"{split}-00000-of-00001.parquet", index=False)
        for name, value in self.json.items():
            (directory / name).write_text(json.dumps(value))
        return directory
