"""litellm asks one image question: BASE_URL MODEL FILE, which holds the image as a data URL."""

import json
import sys
from pathlib import Path

import litellm

base_url, model, path = sys.argv[1:]
image = Path(path).read_text()
content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "What is in the cup?"}]
answer = litellm.completion(
    model=f"openai/{model}",
    api_base=base_url,
    api_key="none",
    messages=[{"role": "user", "content": content}],
)
extra = answer.model_dump().get("dualfocus")
print(json.dumps({"text": answer.choices[0].message.content, "dualfocus": extra}))
