"""Has the model call a function, gives it the result, and prints what it makes of it."""

import json
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionToolParam


def get_weather(city: str) -> str:
    return f"It is sunny in {city}, at 21 degrees."


def main() -> None:
    tool: ChatCompletionToolParam = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
    client = OpenAI()
    model = client.models.list().data[0].id
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]

    asked = client.chat.completions.create(
        model=model,
        messages=messages,
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    message = asked.choices[0].message
    messages.append(message)
    for call in message.tool_calls or []:
        if call.type == "function":
            result = get_weather(**json.loads(call.function.arguments))
            print(f"{call.function.name}({call.function.arguments}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=[tool], tool_choice="none", max_tokens=60
    )
    print(answer.choices[0].message.content)


main()
