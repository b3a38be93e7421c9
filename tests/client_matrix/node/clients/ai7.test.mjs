import * as cohere from "@ai-sdk/cohere";
import * as openai from "@ai-sdk/openai";
import * as compatible from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import { cohereChecks, openaiChecks } from "./ai.mjs";

openaiChecks(["ai", "@ai-sdk/openai"], ai, openai, openai.createOpenAI);
openaiChecks(["ai", "@ai-sdk/openai-compatible"], ai, compatible, (settings) =>
  compatible.createOpenAICompatible({ name: "nearfar", ...settings }),
);
cohereChecks(["ai", "@ai-sdk/cohere"], ai, cohere);
