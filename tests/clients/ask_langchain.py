"""langchain-openai asks one image question: BASE_URL MODEL FILE, which holds the image as a data URL."""

import json
import sys
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

base_url, model, path = sys.argv[1:]
image = Path(path).read_text()
# Fields that OpenAI does not know are kept only in the raw answer.
chat = ChatOpenAI(
    base_url=base_url, model=model, api_key="none", include_response_headers=False, extra_body={"dualfocus": {}}
)
content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "What is in the cup?"}]
answer = chat.invoke([HumanMessage(content=content)])
raw = chat.root_client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
print(json.dumps({"text": answer.content, "dualfocus": raw.model_extra["dualfocus"]}))
