import * as cohere from "ai-cohere3";
import * as openai from "ai-openai3";
import * as ai from "ai6";
import { cohereChecks, openaiChecks } from "./ai.mjs";

openaiChecks(["ai6", "ai-openai3"], ai, openai, openai.createOpenAI);
cohereChecks(["ai6", "ai-cohere3"], ai, cohere);
