"""Shows how failures arrive: as the SDK's own exceptions, with OpenAI's codes."""

from openai import BadRequestError, NotFoundError, OpenAI

client = OpenAI()
model = client.models.list().data[0].id

try:
    client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "Hello"}])
except NotFoundError as error:
    print(error.status_code, error.code, error.request_id)

try:
    client.chat.completions.create(model=model, messages=[])
except BadRequestError as error:
    print(error.status_code, error.code, error.param)
