// The official Node SDK against a running platform; prints what it saw as one JSON object.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ maxRetries: 0 });
const model = process.argv[2];
const messages = [{ role: "user", content: "Name three colours." }];
const seen = {};

const plain = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 30 });
seen.plain = plain.choices[0].message.content;

const stream = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 30 });
seen.streamed = (await stream.finalChatCompletion()).choices[0].message.content;

const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, unit: { type: "string", enum: ["celsius", "fahrenheit"] } },
      required: ["city", "unit"],
      additionalProperties: false,
    },
    strict: true,
  },
};
const called = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "How is the weather in Paris?" }],
  tools: [tool],
  tool_choice: "required",
  temperature: 0,
  max_tokens: 200,
});
const call = called.choices[0].message.tool_calls[0].function;
seen.call = { name: call.name, arguments: JSON.parse(call.arguments) };

const Person = z.object({ name: z.string(), age: z.number().int() });
const parsed = await client.chat.completions.parse({
  model,
  messages: [{ role: "user", content: "Anna is 30. Give her as JSON." }],
  response_format: zodResponseFormat(Person, "person"),
  temperature: 0,
  max_tokens: 200,
});
seen.parsed = parsed.choices[0].message.parsed;

try {
  await client.chat.completions.create({ model, messages, temperature: 3 });
} catch (error) {
  seen.refused = { status: error.status, param: error.param, code: error.code };
}

const long = await client.chat.completions.create({ model, messages, stream: true, max_tokens: 500 });
for await (const chunk of long) {
  if (chunk.choices[0]?.delta.content) break;
}
seen.aborted = long.controller.signal.aborted;

console.log(JSON.stringify(seen));
