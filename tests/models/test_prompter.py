"""CUP and ACP against the equations, written out plainly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gopt_geo.models.acp import AlignmentInducedCrossModalPrompter, UngroupedPrompter
from gopt_geo.models.cup import ClassAwareUniModalPrompter, Grouping
from gopt_geo.models.prompter import GroupingPrompter, expand_prompt
from gopt_geo.models.tokens import normalise_tokens

B, N, K, D, R = 2, 10, 4, 24, 6


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    valid = torch.ones(B, N, dtype=torch.bool)
    valid[:, 7:] = False
    return torch.randn(B, N, D), torch.randn(B, N, D), torch.randn(B, K, D), valid


def written_out(prompter, rgb, auxiliary, class_tokens, valid, *, mode, hard, token_value):
    """Steps 2 to 10 of GOPT.md in evaluation mode, one image after the other, invalid tokens left out."""
    cup, acp = prompter.cup, prompter.acp

    def d(x):
        return prompter.down(F.layer_norm(x, (D,), prompter.norm.weight, prompter.norm.bias, 1e-6))

    prompts, carried = torch.zeros_like(rgb), []
    for b in range(B):
        at = valid[b]
        z, g, q = d(auxiliary[b][at]), d(class_tokens[b]), d(rgb[b][at])
        joint = torch.cat([g, z])
        query, key, value = cup.qkv(joint).chunk(3, dim=-1)
        joint = joint + cup.project(torch.softmax(query @ key.T / R**0.5, dim=-1) @ value)
        g, z = joint[:K], joint[K:]
        s = 5.0 * F.cosine_similarity(cup.group_query(g)[:, None], cup.token_key(z)[None], dim=-1)
        a = F.one_hot(s.argmax(0), K).T.to(s.dtype) if hard else torch.softmax(s, dim=0)
        p = g + cup.output(a @ cup.value(z) / (a.sum(1, keepdim=True) + 1))
        h = torch.zeros(int(at.sum()), R)
        if mode in ("assignment", "both"):
            h = h + a.T @ acp.value(p)
        if mode in ("similarity", "both"):
            h = h + torch.softmax(acp.query(q) @ acp.key(p).T / R**0.5, dim=-1) @ acp.value(p)
        if token_value:
            h = h + z @ acp.value.weight.T
        prompts[b][at] = prompter.scale * prompter.up(h)
        carried.append(class_tokens[b] + prompter.up(p))
    return prompts, torch.stack(carried)


@pytest.mark.brief
@pytest.mark.parametrize("mode", ["assignment", "similarity", "both"])
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("token_value", [True, False])
@torch.no_grad()
def test_the_prompter_is_the_equations(tokens, mode, hard, token_value):
    rgb, auxiliary, class_tokens, valid = tokens
    torch.manual_seed(1)
    prompter = GroupingPrompter(D, R, hard=hard, acp_mode=mode, token_value=token_value).eval()
    for parameter in prompter.parameters():  # away from the start, where affine and biases are neutral
        parameter.add_(0.3 * torch.randn_like(parameter))
    query, reduced = (prompter.reduce(normalise_tokens(x)) for x in (rgb, auxiliary))
    low, carried, grouping = prompter(query, reduced, class_tokens, valid)
    prompt = expand_prompt(prompter, low, valid.unsqueeze(-1), 1)
    expected, expected_carried = written_out(
        prompter, rgb, auxiliary, class_tokens, valid, mode=mode, hard=hard, token_value=token_value
    )
    torch.testing.assert_close(prompt, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(carried, expected_carried, rtol=1e-4, atol=1e-5)
    assert not grouping.assignment[:, :, ~valid[0]].any()
    assert not prompt[~valid].any()


def test_the_learned_scale_starts_at_a_hundredth_and_the_count_is_that_of_the_equations():
    prompter = GroupingPrompter(D, R, acp_mode="both")
    assert torch.equal(prompter.scale, torch.full((D,), 0.01))
    assert sum(p.numel() for p in prompter.parameters()) == 2 * D * R + 4 * D + 11 * R**2 + 12 * R


@pytest.mark.brief
@pytest.mark.parametrize("training", [True, False])
def test_hard_assignment_is_one_hot_over_groups(training):
    torch.manual_seed(0)
    cup = ClassAwareUniModalPrompter(R, hard=True).train(training)
    assignment = cup.assign(5 * torch.rand(3, K, 500) - 2.5)
    assert ((assignment == 0) | (assignment == 1)).all()
    assert (assignment.sum(1) == 1).all()
    assert (assignment.sum((0, 2)) > 0).all()


@pytest.mark.brief
def test_the_gradient_of_hard_assignment_is_that_of_soft():
    torch.manual_seed(0)
    similarity, weight = torch.randn(2, K, 50), torch.randn(2, K, 50)
    gradients = []
    for hard in (True, False):
        s = similarity.clone().requires_grad_()
        torch.manual_seed(7)  # the same noise
        (ClassAwareUniModalPrompter(R, hard=hard).train().assign(s) * weight).sum().backward()
        gradients.append(s.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(gradients[0], gradients[1])


def test_evaluation_takes_the_most_similar_group_without_noise():
    similarity = torch.randn(2, K, 50)
    hard = ClassAwareUniModalPrompter(R).eval().assign(similarity)
    assert torch.equal(hard.argmax(1), similarity.argmax(1))
    soft = ClassAwareUniModalPrompter(R, hard=False).eval().assign(similarity)
    torch.testing.assert_close(soft, torch.softmax(similarity, 1))


def test_training_chooses_groups_as_often_as_their_softmax_says():
    """The Gumbel-max property: argmax of S + g is a draw from softmax S."""
    torch.manual_seed(0)
    similarity = torch.tensor([2.0, 1.0, 0.0, -1.0]).view(1, K, 1).expand(1, K, 40_000)
    drawn = ClassAwareUniModalPrompter(R).train().assign(similarity).mean((0, 2))
    torch.testing.assert_close(drawn, torch.softmax(similarity[0, :, 0], 0), rtol=0, atol=0.01)


@pytest.mark.brief
def test_gradcheck_of_soft_grouping_in_double_precision():
    torch.manual_seed(0)
    cup = ClassAwareUniModalPrompter(3, hard=False).double().eval()
    valid = torch.tensor([[True, True, False, True, True]])
    groups = torch.randn(1, 2, 3, dtype=torch.double, requires_grad=True)
    tokens = torch.randn(1, 5, 3, dtype=torch.double, requires_grad=True)

    def call(g, t):
        grouping = cup(g, t, valid)
        return grouping.representation, grouping.assignment

    assert torch.autograd.gradcheck(call, (groups, tokens))


def test_the_similarity_is_bounded_and_in_fp32_under_half_precision(tokens):
    seen = []

    class Watched(ClassAwareUniModalPrompter):
        def assign(self, similarity):
            seen.append(similarity)
            return super().assign(similarity)

    cup = Watched(R).to(torch.bfloat16)
    with torch.no_grad():
        for weight in (cup.group_query.weight, cup.token_key.weight):
            weight.mul_(1000)  # unbounded, these would drown the noise
        grouping = cup(
            torch.randn(B, K, R, dtype=torch.bfloat16), torch.randn(B, N, R, dtype=torch.bfloat16), tokens[3]
        )
    assert seen[0].dtype == torch.float32
    assert seen[0].abs().max() <= 5.1
    assert grouping.representation.dtype == torch.bfloat16


def test_without_any_valid_token_the_groups_attend_to_themselves_alone():
    cup = ClassAwareUniModalPrompter(R).eval()
    nowhere = torch.zeros(B, N, dtype=torch.bool)
    groups = torch.randn(B, K, R)
    first = cup(groups, torch.randn(B, N, R), nowhere)
    second = cup(groups, torch.randn(B, N, R), nowhere)
    assert torch.isfinite(first.representation).all()
    torch.testing.assert_close(first.representation, second.representation)
    assert not first.assignment.any()


def test_assignment_gives_each_pixel_its_own_group_and_similarity_what_its_rgb_token_asks_for():
    torch.manual_seed(0)
    representation = torch.randn(1, K, R)
    assignment = F.one_hot(torch.tensor([[0, 3, 3, 1]]), K).transpose(1, 2).float()
    grouping = Grouping(representation, assignment, torch.randn(1, 4, R))
    acp = AlignmentInducedCrossModalPrompter(R)
    prompt = acp(None, grouping)
    torch.testing.assert_close(prompt[0], acp.value(representation[0, [0, 3, 3, 1]]))
    by_rgb = AlignmentInducedCrossModalPrompter(R, mode="similarity")
    rgb = torch.randn(1, 4, R)
    turned = Grouping(representation, assignment.roll(1, 2), grouping.tokens.roll(1, 1))
    assert torch.equal(by_rgb(rgb, grouping), by_rgb(rgb, turned))
    assert not torch.allclose(by_rgb(rgb, grouping), by_rgb(rgb.roll(1, 1), grouping))


@pytest.mark.parametrize("valid", [None, [True, True, False, True, True], [False] * 5])
@pytest.mark.parametrize("acp_mode", ["assignment", "similarity", "both", "broadcast"])
def test_gradcheck_of_a_whole_soft_prompter_in_double_precision(valid, acp_mode):
    torch.manual_seed(0)
    prompter = GroupingPrompter(4, 3, hard=False, acp_mode=acp_mode, token_value=acp_mode == "both").double().eval()
    given = [torch.randn(1, n, w, dtype=torch.double, requires_grad=True) for n, w in ((5, 3), (5, 3), (2, 4))]
    parameters = [*prompter.parameters()]
    there = None if valid is None else torch.tensor([valid])

    def call(rgb, reduced, classes, *_):
        prompt, classes, _ = prompter(rgb, reduced, classes, there)
        counts = None if there is None else there.unsqueeze(-1)
        return expand_prompt(prompter, prompt, counts, 1), classes

    assert torch.autograd.gradcheck(call, (*given, *parameters))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
@torch.no_grad()
def test_attention_without_groups_is_the_equation_over_valid_tokens_and_finite_without_any(share):
    torch.manual_seed(0)
    rgb, tokens, valid = torch.randn(B, N, R), torch.randn(B, N, R), torch.rand(B, N) < share
    acp = UngroupedPrompter(R, mode="cross_attention")
    made = acp(rgb, tokens, valid)
    assert torch.isfinite(made).all()
    for b in range(B):
        at = valid[b] | ~valid[b].any()
        weights = torch.softmax(acp.query(rgb[b]) @ acp.key(tokens[b][at]).T / R**0.5, dim=-1)
        torch.testing.assert_close(made[b], weights @ acp.value(tokens[b][at]), rtol=1e-4, atol=1e-5)
    pointwise = UngroupedPrompter(R, mode="pointwise")
    assert torch.equal(pointwise(None, tokens, valid), pointwise.value(tokens))


def test_noise_is_drawn_for_every_token_group_and_image_and_in_the_similaritys_precision():
    torch.manual_seed(0)
    cup = ClassAwareUniModalPrompter(R, hard=False).train()
    drawn = cup.assign(torch.zeros(B, K, N, dtype=torch.double))
    assert drawn.dtype == torch.double
    assert drawn.unique().numel() == drawn.numel()
    torch.testing.assert_close(drawn.sum(1), torch.ones(B, N, dtype=torch.double))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_tokens_that_are_not_valid_belong_to_no_group_and_receive_no_gradient(tokens, hard, training):
    valid = tokens[3]
    torch.manual_seed(0)
    cup = ClassAwareUniModalPrompter(R, hard=hard).train(training)
    given = torch.randn(B, N, R, requires_grad=True)
    grouping = cup(torch.randn(B, K, R), given, valid)
    torch.testing.assert_close(grouping.assignment.sum(1), valid.float())
    grouping.representation.square().sum().backward()
    assert not given.grad[~valid].any()
    assert (given.grad[valid].abs().amax(-1) > 0).all()


@torch.no_grad()
def test_prompts_of_several_modalities_share_one_product_and_the_bias_counts_for_each():
    torch.manual_seed(0)
    prompter = GroupingPrompter(D, R, scale=0.5)
    torch.nn.init.normal_(prompter.up.bias)
    parts, valid = torch.randn(3, B, N, R), torch.rand(3, B, N, 1) < 0.5
    expected = sum(valid[m] * prompter.scale * prompter.up(parts[m]) for m in range(3))
    made = expand_prompt(prompter, (parts * valid).sum(0), valid.sum(0), 3)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    assert not made[~valid.any(0).squeeze(-1)].any()
    everywhere = expand_prompt(prompter, parts.sum(0), None, 3)
    torch.testing.assert_close(everywhere, sum(prompter.scale * prompter.up(p) for p in parts), rtol=1e-4, atol=1e-5)
