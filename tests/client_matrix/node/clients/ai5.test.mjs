import * as cohere from "ai-cohere2";
import * as openai from "ai-openai2";
import * as ai from "ai5";
import { cohereChecks, openaiChecks } from "./ai.mjs";

openaiChecks(["ai5", "ai-openai2"], ai, openai, openai.createOpenAI);
cohereChecks(["ai5", "ai-cohere2"], ai, cohere);
