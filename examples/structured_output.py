"""Has the model fill in a class: the answer always fits it."""

from openai import OpenAI
from pydantic import BaseModel, Field


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int


client = OpenAI()
model = client.models.list().data[0].id

completion = client.chat.completions.parse(
    model=model,
    messages=[{"role": "user", "content": "Anna is 30 years old. Give her name and age as JSON."}],
    response_format=Person,
)
print(completion.choices[0].message.parsed)
