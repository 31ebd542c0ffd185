"""Asks a question and prints the answer."""

from openai import OpenAI

client = OpenAI()
model = client.models.list().data[0].id

completion = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_completion_tokens=50,
)
print(completion.choices[0].message.content)
