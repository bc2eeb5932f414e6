"""instructor asks one image question for a typed answer: BASE_URL MODEL FILE, which holds the image as a data URL."""

import json
import sys
from pathlib import Path

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Seen(BaseModel):
    """What the model is to say."""

    anything: bool


base_url, model, path = sys.argv[1:]
image = Path(path).read_text()
client = instructor.from_openai(OpenAI(base_url=base_url, api_key="none"), mode=instructor.Mode.JSON_SCHEMA)
content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "Is anything in the cup?"}]
seen, raw = client.chat.completions.create_with_completion(
    model=model, messages=[{"role": "user", "content": content}], response_model=Seen, max_tokens=60, max_retries=0
)
print(json.dumps({"text": seen.model_dump_json(), "dualfocus": raw.model_extra["dualfocus"]}))
